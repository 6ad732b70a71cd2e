//go:build !race

package signertest

const slowdown = 1
