"""The chat page: Gradio layout, handlers and plots. No logic: it turns a session's events into widgets."""
