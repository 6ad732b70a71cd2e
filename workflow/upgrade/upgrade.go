// Package upgrade is the domain: the records that people and Kernels sign,
// who counts towards a quorum, and what the Kernel may sign (PROTOCOL sections
// 6 to 9). It is pure: bytes and registry documents in, typed values and
// verdicts out; time is always an argument.
package upgrade

// Quorum is how many distinct persons must agree. The pool is five. Both are
// constants of the format, not settings.
const Quorum = 3

// Skew is how far, in seconds, clocks of honest machines may differ.
const Skew = 300
