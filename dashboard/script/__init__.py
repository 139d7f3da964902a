"""What `streamlit run` is given; in a folder of its own, since Streamlit claims a folder `pages/` beside its script."""
