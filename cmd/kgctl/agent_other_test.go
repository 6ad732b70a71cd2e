//go:build !linux

package main

import "github.com/rogpeppe/go-internal/testscript"

// agentCommands are none where the tests have no pseudo-terminal.
func agentCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){}
}
