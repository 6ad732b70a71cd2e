package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"
)

// askPIN asks for a token's PIN, unseen, where the key's URI has no pin-source
// and somebody sits at the terminal. Who calls it wipes what it returns.
func (a *app) askPIN(_ context.Context, token string) ([]byte, error) {
	if a.asks != nil || a.noInput || !isTerminal(a.in) { // an agent's terminal is for its questions
		return nil, errors.New("the key's URI has no pin-source, and nobody can be asked here: add pin-source=file:/path or pin-source=env:NAME")
	}
	fmt.Fprintf(a.messages, "PIN of token %q: ", token)
	pin, err := term.ReadPassword(int(a.in.Fd()))
	fmt.Fprintln(a.messages)
	if err == nil && len(pin) == 0 {
		err = errors.New("no PIN was typed, and none was sent")
	}
	return pin, err
}

// keepTerminal returns what puts the terminal back as it is now: who is
// interrupted while a PIN is typed would have one that shows nothing.
func keepTerminal(in *os.File) (restore func()) {
	state, err := term.GetState(int(in.Fd()))
	if err != nil {
		return func() {} // no terminal
	}
	return func() { _ = term.Restore(int(in.Fd()), state) } // nothing more can be done
}
