//go:build race

package signertest

// slowdown is by how much the race detector makes a process slower.
const slowdown = 3
