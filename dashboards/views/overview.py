"""Overview: is this LoRA good, and if not, why?"""

import streamlit as st

from dashboards import cells, opened, origins, parts, samples, strip
from dashboards.charts import SHAPES
from lorascope.records import Finding, Outcome, Severity

MARKS = {Severity.ERROR: "▲", Severity.WARNING: "◆", Severity.INFO: "○"}
SAYS = {
    Outcome.PASS: "● Good to use",
    Outcome.WARN: "◆ Usable, with doubts",
    Outcome.FAIL: "▲ Not good yet",
    Outcome.INCONCLUSIVE: "? Cannot be said yet",
}


def draw_finding(finding: Finding) -> None:
    """Draw one finding: how bad, how sure, on how many, why, and what to do."""
    with st.container(border=True):
        st.markdown(f"{MARKS[finding.severity]} **{finding.severity}** · {finding.code}")
        st.markdown(parts.plain(finding.text))
        st.caption(f"Confidence {finding.confidence} · n = {finding.n}")
        if finding.fix:
            st.markdown(f"**Do:** {parts.plain(finding.fix)}")
        if finding.command:
            parts.command(finding.command)
        with st.popover("Why?"):
            parts.table([{"what": k, "value": v} for k, v in finding.numbers.items()])
            parts.table([{"about": k, "which": str(v)} for k, v in finding.subject.items()])
            st.caption(f"Evidence: {', '.join(finding.because) or 'the run itself'}")
            parts.command(f"lorascope explain {finding.code}")


page = parts.open_page(parts.current_run().name)
verdict, best = page.verdict, page.verdict.best
grid = parts.evidence(page.run, "grid")
said, seen = st.columns([3, 2], gap="large")
with said:
    st.subheader(SAYS[verdict.outcome])
    st.markdown(parts.plain(verdict.summary))
    if best:
        st.caption(
            f"Step {best.step}, judged at strength {best.strength:g}. Likeness first: epoch "
            f"{best.likeness_first}. Flexibility first: epoch {best.flexibility_first}. "
            f"Evidence of tier {verdict.tier}."
        )
    fit = next((e for e in verdict.epochs if e.epoch == page.epoch), None)
    if fit:
        sure = f", {fit.probability:.0%} sure" if fit.probability else ""
        st.markdown(f"You look at epoch {fit.epoch}: {SHAPES[fit.fit]} {fit.fit}{sure}.")
        parts.command(f"lorascope pick {page.run.shell} {fit.epoch} --to FOLDER")
    if not verdict.epochs:  # then it is the most that can be said
        origins.draw(page.run)
with seen:
    sheet, by_trainer = samples.pictures(page.run, grid)
    here = cells.of_strip(sheet, strip.prompt_of(sheet)).get(page.epoch or 0)
    if here:
        drawn = ", drawn by the trainer" if by_trainer else ""
        opened.picture(page, here, f"Epoch {page.epoch}: {here['prompt']}{drawn}")

if verdict.findings:
    st.subheader("Findings")
    for finding in verdict.findings:
        draw_finding(finding)
elif verdict.outcome is not Outcome.INCONCLUSIVE:
    st.markdown("Nothing was found against it.")
if verdict.epochs:
    origins.draw(page.run)
if verdict.not_measured:
    st.subheader("Not measured")
    st.caption("What nobody looked at is never taken for good.")
    gaps = (f"- **{parts.plain(g.tool)}**: {parts.plain(g.why)}" for g in verdict.not_measured)
    st.markdown("\n".join(gaps))
    parts.command("\n".join(dict.fromkeys(g.command for g in verdict.not_measured)))
