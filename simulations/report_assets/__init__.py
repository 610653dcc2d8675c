"""Browser files of the reports; what they share with the live page is in scaler.charts."""
