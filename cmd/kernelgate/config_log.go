package main

import (
	"fmt"
	"io"
	"log/slog"
)

// Log says how the processes write their logs, which go to standard error.
type Log struct {
	Format string `yaml:"format"` // json or text
	Level  string `yaml:"level"`  // debug, info, warn or error

	level slog.Level
}

func (l *Log) settle(*Config) error {
	if l.Format != "json" && l.Format != "text" {
		return fmt.Errorf("format: %q is neither json nor text", l.Format)
	}
	if err := l.level.UnmarshalText([]byte(l.Level)); err != nil {
		return fmt.Errorf("level: %q is none of debug, info, warn, error", l.Level)
	}
	return nil
}

func (l *Log) logger(w io.Writer, process string) *slog.Logger {
	options := &slog.HandlerOptions{Level: l.level}
	var h slog.Handler = slog.NewJSONHandler(w, options)
	if l.Format == "text" {
		h = slog.NewTextHandler(w, options)
	}
	return slog.New(h).With("process", process)
}
