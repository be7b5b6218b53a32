"""Records of runs, and what is made from them: reports, figures, widgets.

`records` writes and reads run.json; `reports` turns records into pages and tables; `costs` compares what trainings
took; `figures` draws; `widgets` shows summaries side by side.
"""

from summkit.reporting import figures, widgets
from summkit.reporting.costs import cost_table
from summkit.reporting.markup import cell_text, display_name
from summkit.reporting.records import add_earlier_runs, fill_record, new_record, read_record, run_folder, write_record
from summkit.reporting.reports import closing_lines, comparison_table, publish, write_report
