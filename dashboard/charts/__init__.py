"""Plotly figures: figure = f(info). No arithmetic, no files, no Streamlit."""
