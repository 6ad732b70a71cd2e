package main

import (
	"errors"
	"time"
)

const (
	defaultDrain    = 20 * time.Second
	defaultUnsealed = 1000
)

// Limits are the gateway's bounds.
type Limits struct {
	Drain          time.Duration `yaml:"drain"`          // for requests under way, at the end
	UnsealedEvents int64         `yaml:"unsealedEvents"` // with which the gateway is still ready
	// MaxUnsealedEvents are those with which it still takes new work.
	MaxUnsealedEvents int64 `yaml:"maxUnsealedEvents"`
	// Heartbeat is how long the log may stand still before it gets a sign of life.
	Heartbeat time.Duration `yaml:"heartbeat"`
}

func (l *Limits) settle(*Config) error {
	if l.Drain <= 0 || l.UnsealedEvents <= 0 {
		return errors.New("drain and unsealedEvents must be positive")
	}
	if l.MaxUnsealedEvents < l.UnsealedEvents {
		return errors.New("maxUnsealedEvents must not be below unsealedEvents")
	}
	// More often, and the guard, which remembers each beat's key for a month, knows too many.
	if l.Heartbeat < 15*time.Minute || l.Heartbeat > 24*time.Hour {
		return errors.New("heartbeat must be 15m to 24h")
	}
	return nil
}
