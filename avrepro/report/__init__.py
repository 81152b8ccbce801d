"""What chapters show of results: tables, figures, listings, sentences with numbers, players, verdicts, passports.

Each is one function, displays in the notebook, and marks its output with the runs whose numbers it shows.
"""

from __future__ import annotations

from avrepro.report.checks import check_executed, check_page, runs_shown
from avrepro.report.display import Cell, note, table
from avrepro.report.figures import diagram, figure, style
from avrepro.report.heat_strips import Localisation, localisation_figure
from avrepro.report.judgements import claims_text, forest, protocol, verdicts
from avrepro.report.listings import code, write_sources
from avrepro.report.players import localisation_player, player
from avrepro.report.sentences import glue
from avrepro.report.tables import ahead, compare, costs, passports, settings, tidy
from avrepro.report.wording import measured, origin, percent, published, title, with_unit

__all__ = [
    "Cell", "Localisation", "ahead", "check_executed", "check_page", "claims_text", "code", "compare", "costs",
    "diagram", "figure", "forest", "glue", "localisation_figure", "localisation_player", "measured", "note", "origin",
    "passports", "percent", "player", "protocol", "published", "runs_shown", "settings", "style",
    "table", "tidy", "title", "verdicts", "with_unit", "write_sources",
]  # fmt: skip

style()
