"""The server of `streamlit run server.py -- OUT [--address RAY]`: app.py behind `OwnOrigin` and a log-in, if wanted."""

import os
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from smoe_ray_dashboard.log_in import LogIn
from smoe_ray_dashboard.own_origin import OwnOrigin
from smoe_ray_dashboard.serve import LOG_IN

token = os.environ.get(LOG_IN, "")
log_in = [Middleware(LogIn, token=token)] if token else []
app = st.App(Path(__file__).with_name("app.py"), middleware=[Middleware(OwnOrigin), *log_in])
