"""What every view needs of HTTP: who calls, bodies and streams in time, refusals, pages of lists."""
