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
}

func (l *Limits) settle(*Config) error {
	if l.Drain <= 0 || l.UnsealedEvents <= 0 {
		return errors.New("drain and unsealedEvents must be positive")
	}
	return nil
}
