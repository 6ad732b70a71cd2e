// Package upgrade is the domain: the records that people and Kernels sign,
// who counts towards a quorum, and what the Kernel may sign (PROTOCOL sections
// 6 to 9). It is pure: bytes and registry documents in, typed values and
// verdicts out; time is always an argument.
package upgrade

import "github.com/kernelgate/kernelgate/keyregistry"

// Quorum is how many distinct persons must agree.
const Quorum = keyregistry.Quorum

// Skew is how far, in seconds, clocks of honest machines may differ.
const Skew = 300
