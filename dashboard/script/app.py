"""The script of `streamlit run app.py -- OUT [--address RAY]`, which `smoe-ray dashboard` starts."""

from smoe_ray_dashboard import navigation  # absolute: Streamlit runs this file as __main__, which is in no package

navigation.run()
