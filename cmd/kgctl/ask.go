package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// confirm asks, and takes only y or yes for a yes. Where nobody can be asked
// --yes must say so.
func (a *app) confirm(ctx context.Context, question string) error {
	if a.asks != nil {
		return a.asks(ctx, question)
	}
	if a.yes {
		return nil
	}
	if a.noInput || !isTerminal(a.in) {
		return usagef("%s Nobody can be asked here: say --yes if so", question)
	}
	_, _ = io.WriteString(a.messages, question+" [y/N] ")
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil || !isYes(answer) {
		return errCancelled
	}
	return nil
}

func isYes(answer string) bool {
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}

// listen hands on the lines of f as they come, and closes at its end. It reads
// ahead of who asks, so that a line which nobody waited for is seen as such.
func listen(f *os.File) <-chan string {
	lines := make(chan string, 64)
	go func() {
		defer close(lines)
		for text := bufio.NewScanner(f); text.Scan(); {
			lines <- text.Text()
		}
	}()
	return lines
}

// local is a time for people: in their own zone. JSON has UTC.
func local(t envelope.Time) string { return t.Std().Local().Format(time.DateTime) }

// localText is local for a time that the gateway sent as text.
func localText(text string) string {
	t, err := envelope.ParseTime(text)
	if err != nil {
		return "?"
	}
	return local(t)
}

// foreign is text that nobody has signed, on one line.
func foreign(text string) string {
	return shown(strings.NewReplacer("\n", " ", "\t", " ").Replace(text))
}

// shown is a text whose characters are all seen, and that leaves the terminal alone.
func shown(text string) string {
	return envelope.Reveal(strings.ReplaceAll(text, "\r", "[U+000D]"))
}

// indented keeps the lines of a signed text apart from kgctl's own.
func indented(text string) string {
	return strings.ReplaceAll(shown(text), "\n", "\n             | ")
}
