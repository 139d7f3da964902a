"""The dashboard: browse studies while they run. `smoe-ray dashboard OUT` starts it; docs/dashboard.md describes it.

A page is a package below `pages/`: `view.py` lays out widgets and text, `data.py` computes and caches what they show,
`charts.py` makes Plotly figures of it (no arithmetic, no files, no Streamlit). Pages read OUT and never write to it.
"""
