package storage

import "time"

// Hurry makes all of a store's limits this short.
func (s *db) Hurry(d time.Duration) { s.limits = limits{d, d, d} }
