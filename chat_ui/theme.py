"""Colours, fonts and style sheet of the page. Nothing here is fetched from a network."""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base, Color, Size
from gradio.themes.utils.fonts import Font

STYLE_SHEET = Path(__file__).with_name("style.css")
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

TEAL = Color(
    name="instructcell",
    c50="#effcf9",
    c100="#c9f5ea",
    c200="#94ead7",
    c300="#57d5bf",
    c400="#27b8a4",
    c500="#0f9c8a",
    c600="#0b7d71",
    c700="#0d645c",
    c800="#104f4a",
    c900="#12423e",
    c950="#042624",
)
ROUND = Size(name="instructcell", xxs="4px", xs="6px", sm="8px", md="10px", lg="12px", xl="16px", xxl="20px")


def page_theme() -> Base:
    """The theme of the page: teal on slate, system fonts, light and dark."""
    return Base(
        primary_hue=TEAL,
        secondary_hue=TEAL,
        neutral_hue="slate",
        radius_size=ROUND,
        font=[Font(name) for name in SANS],
        font_mono=[Font(name) for name in MONO],
    ).set(
        body_background_fill="#f6f8fa",
        body_background_fill_dark="#0b1220",
        block_background_fill="white",
        block_background_fill_dark="#111a2b",
        block_border_width="1px",
        block_border_color="#e2e8f0",
        block_border_color_dark="#223047",
        block_shadow="0 1px 2px rgba(15, 23, 42, .05)",
        block_shadow_dark="none",
        border_color_primary="#e2e8f0",
        border_color_primary_dark="#223047",
        background_fill_primary_dark="#111a2b",
        background_fill_secondary_dark="#0e1626",
        input_background_fill="white",
        input_background_fill_dark="#0e1626",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*primary_50",
        button_secondary_background_fill_dark="#16213a",
        button_secondary_background_fill_hover_dark="#1d2b4a",
        button_secondary_border_color="#d7dfe8",
        button_secondary_border_color_dark="#2a3a56",
        button_border_width="1px",
        button_secondary_border_color_hover="*primary_300",
        button_primary_border_color="*primary_600",
        body_text_color_subdued="#56657a",
        body_text_color_subdued_dark="#9fb0c6",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="#0f2f33",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )
