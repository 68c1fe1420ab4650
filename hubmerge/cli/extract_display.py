"""What people see of an extraction: one display while it runs, a table when it is done."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from hubmerge.cli.display import Bars, plain_table, size_text
from hubmerge.extract.plan import ExtractPlan
from hubmerge.extract.progress import Stage
from hubmerge.extract.report import Report


class ExtractDisplay(Bars):
    """A running extraction of an adapter."""

    def begin(self, plan: ExtractPlan) -> None:
        """Shows what there is to do."""
        self.start(dict.fromkeys(Stage, plan.read_bytes))
        names = f"{plan.finetuned.files.label} and {plan.base.files.label}"
        self.say(f"Taking the difference of {names}: {size_text(plan.read_bytes)} to read")
        for note in plan.notes:
            self.say(f"! {note}")


def report_view(found: Report) -> RenderableType:
    """Returns for reading what an adapter keeps."""
    table = plain_table("modules", "number", "kept as", "rank", "energy kept")
    for group in found.groups:
        least, most = group.ranks
        ranks = "" if not most else str(most) if least == most else f"{least}-{most}"
        kept = "another vocabulary" if group.kept is None else f"{group.kept:.2%}"
        table.add_row(escape(group.group), str(group.count), group.how, ranks, kept)
    return Group(table, Text(f"relative error {found.relative_error:.4g} · {found.parameters:,} parameters"))
