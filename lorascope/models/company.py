"""What may be said of a picture that was drawn in other company; plain text, without torch."""

COMPANY = (
    "A picture drawn alone, in any batch, after a resume or by another process is the same to the "
    "bit on a CPU in bfloat16 and, in batches of one shape, on other devices. In float32 on a CPU, "
    "or with another number of threads, it is the same within 1/255."
)
