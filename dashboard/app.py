"""The router: `streamlit run dashboard/app.py -- OUT [--address RAY]`, which `smoe-ray dashboard` does."""

from __future__ import annotations

import streamlit as st

from dashboard import load, views

# Without an icon of our own, Streamlit has the browser fetch one from a font server.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M8 8 3 3M8 8h6M8 8l-5 5" stroke="#0072B2" '
    'stroke-width="1.5"/><g fill="#D55E00"><circle cx="3" cy="3" r="2"/><circle cx="14" cy="8" r="2"/>'
    '<circle cx="3" cy="13" r="2"/></g><circle cx="8" cy="8" r="3" fill="#0072B2"/></svg>'
)

st.set_page_config(page_title="smoe-ray", page_icon=ICON, layout="wide", initial_sidebar_state=230)
st.navigation(views.pages(with_submit=load.address() is not None)).run()
