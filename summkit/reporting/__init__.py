"""Run records, and their presentation: reports, comparisons, figures, widgets.

`records` writes and reads run.json; `report` turns one record into a page; `comparison` compares several records;
`tables` has the tables of both; `figures` draws; `widgets` shows summaries side by side.
"""

from summkit.reporting import figures, widgets
from summkit.reporting.comparison import comparison_table
from summkit.reporting.records import fill_record, new_record, read_record, run_folder, write_record
from summkit.reporting.report import closing_lines, report_page, result_lines, write_card, write_report
from summkit.reporting.tables import cell_text, display_name
