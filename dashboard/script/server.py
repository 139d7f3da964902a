"""The server of `streamlit run server.py -- OUT [--address RAY]`: app.py behind `OwnOrigin`."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from smoe_ray_dashboard.own_origin import OwnOrigin

app = st.App(Path(__file__).with_name("app.py"), middleware=[Middleware(OwnOrigin)])
