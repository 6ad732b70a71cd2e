package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// maxJUnit bounds a JUnit file, in bytes.
	maxJUnit = 64 << 20
	// maxNames is how many test cases a result names, each by maxName runes at
	// most: a payload has 64 KiB.
	maxNames = 100
	maxName  = 120
	maxDepth = 64
)

// readJUnit takes a run's outcome from a JUnit XML file: failed where any case
// failed or had an error. A file without cases is refused: what did not run
// did not pass.
func readJUnit(path string) (outcome, error) {
	f, err := os.Open(path)
	if err != nil {
		return outcome{}, err
	}
	defer func() { _ = f.Close() }() // only read
	j := junit{decoder: xml.NewDecoder(io.LimitReader(f, maxJUnit))}
	if err := j.read(); err != nil {
		return outcome{}, fmt.Errorf("JUnit file %s: %w", path, err)
	}
	found := outcome{Result: "PASSED", PassedTests: j.passed, FailedTests: j.failed}
	switch {
	case j.cases == 0 && j.failures == 0:
		return outcome{}, fmt.Errorf("JUnit file %s has no test case that ran: that is no result", path)
	case j.failures > 0:
		found.Result = "FAILED"
	}
	return found, nil
}

type junit struct {
	decoder         *xml.Decoder
	cases, failures int
	passed, failed  []string
}

// read goes through the file without keeping it.
func (j *junit) read() error {
	depth := 0
	var name string
	var inCase, bad, skipped bool
	for {
		token, err := j.decoder.Token()
		if errors.Is(err, io.EOF) && depth == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return errors.New("nested too deeply")
			}
			switch t.Name.Local {
			case "testcase":
				name, inCase, bad, skipped = caseName(t), true, false, false
			case "failure", "error":
				bad = true
				if !inCase {
					j.failures++ // of a whole suite
				}
			case "skipped":
				skipped = true
			}
		case xml.EndElement:
			depth--
			if t.Name.Local == "testcase" {
				j.count(name, bad, skipped)
				inCase = false
			}
		}
	}
}

func (j *junit) count(name string, bad, skipped bool) {
	switch {
	case bad:
		j.cases++
		j.failures++
		if len(j.failed) < maxNames {
			j.failed = append(j.failed, name)
		}
	case !skipped:
		j.cases++
		if len(j.passed) < maxNames {
			j.passed = append(j.passed, name)
		}
	}
}

func caseName(t xml.StartElement) string {
	var class, name string
	for _, a := range t.Attr {
		switch a.Name.Local {
		case "classname":
			class = a.Value + "."
		case "name":
			name = a.Value
		}
	}
	runes := []rune(foreign(class + name))
	return string(runes[:min(len(runes), maxName)])
}
