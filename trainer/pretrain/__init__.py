"""Trains the miniature from nothing: drawings, autoencoder, text encoder and U-Net, export."""
