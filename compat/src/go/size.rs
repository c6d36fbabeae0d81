//! Humanised byte sizes, as go-humanize prints them.
