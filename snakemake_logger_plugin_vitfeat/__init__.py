"""The name under which Snakemake finds the logger ``vitfeat`` (``--logger vitfeat``)."""

from vitfeat.monitor.handler import LogHandler

__all__ = ["LogHandler"]
