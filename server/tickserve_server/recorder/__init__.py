"""The recorder process: durable feedback, live performance, write-back, metric log, events."""
