"""The report: one self-contained page of a study's results, with its figures and tables as separate files.

A pipeline of results -> analysis -> figures -> HTML. No statistic is computed here.

>>> from smoe_ray.report import write_report
>>> write_report("results", ["quickstart"], "report")  # doctest: +SKIP
"""

from smoe_ray.report.write import write_report

__all__ = ["write_report"]
