package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/changes"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// diffLimits are more than a web page has: here the approver's own machine works.
func diffLimits() changes.Limits {
	return changes.Limits{Bytes: 8 << 30, Entries: 100_000, TextFile: 1 << 20, Text: 32 << 20}
}

// fileChange is one file of upgrade diff.
type fileChange struct {
	Status string   `json:"status"` // added, removed, modified or mode
	Path   string   `json:"path"`
	Before int64    `json:"before,omitzero"` // bytes
	After  int64    `json:"after,omitzero"`
	Detail string   `json:"detail,omitzero"`
	Lines  []string `json:"lines,omitzero"` // of a unified diff; with --patch
}

// difference is what lies between two artifacts.
type difference struct {
	Changes []fileChange `json:"changes"`
	Same    int          `json:"same"`           // files that are equal
	Note    string       `json:"note,omitzero"`  // why there is less to see
	Patch   []string     `json:"patch,omitzero"` // of an artifact that is a text; with --patch
}

// inspect hashes the artifact's bytes, which must be the manifest's, and says
// in one line what they change.
func (a *app) inspect(ctx context.Context, s *session, m *upgrade.Manifest, artifact string) (string, error) {
	set, err := a.difference(ctx, s, m, artifact)
	if err != nil {
		return "", err
	}
	switch {
	case set.Patch != nil:
		return fmt.Sprintf("the artifact is a text of %d lines", len(set.Patch)), nil
	case set.Note != "" && len(set.Files) == 0:
		return set.Note, nil
	}
	counts, names := map[changes.Kind]int{}, []string{}
	for _, f := range set.Files {
		counts[f.Kind]++
		if len(names) < 8 {
			names = append(names, foreign(f.Path))
		}
	}
	text := fmt.Sprintf("%d added, %d removed, %d modified, %d of other mode, %d unchanged",
		counts[changes.Added], counts[changes.Removed], counts[changes.Modified], counts[changes.Mode], set.Same)
	if len(names) > 0 {
		text += ": " + strings.Join(names, ", ")
	}
	if len(set.Files) > len(names) {
		text += ", ..."
	}
	if set.Note != "" {
		text += ". " + set.Note
	}
	return text, nil
}

// difference compares an upgrade's artifact with what it replaces. Only the
// artifact must be there: what is live is for information.
func (a *app) difference(ctx context.Context, s *session, m *upgrade.Manifest, artifact string) (*changes.Set, error) {
	next, done, err := a.artifact(ctx, s.Client, m.PatchHash, artifact)
	if err != nil {
		return nil, err
	}
	defer done()
	base, ok := m.BaseRevision.Digest()
	if !ok {
		return compare("", next)
	}
	last, doneLast, err := a.artifact(ctx, s.Client, base, "")
	if failure.ClassOf(err) != "" {
		return nil, err // a gateway that lies about one artifact is not to be believed in another
	}
	if err != nil {
		return &changes.Set{Note: "What is live cannot be compared: " + foreign(err.Error())}, nil
	}
	defer doneLast()
	return compare(last, next)
}

// compare compares two artifacts; before "" is what was never there. One that
// cannot be looked into can still be signed, by its digest; it is said.
func compare(before, after string) (*changes.Set, error) {
	next, err := openSource(after)
	if err != nil {
		return nil, err
	}
	defer next.close()
	var base *changes.Source
	if before != "" {
		last, err := openSource(before)
		if err != nil {
			return nil, err
		}
		defer last.close()
		base = &last.Source
	}
	set, err := changes.Compare(base, next.Source, diffLimits())
	if err != nil {
		return &changes.Set{Note: "The files cannot be compared: " + foreign(err.Error())}, nil
	}
	return set, nil
}

type source struct {
	changes.Source
	close func()
}

func openSource(path string) (source, error) {
	f, err := os.Open(path)
	if err != nil {
		return source{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return source{}, errors.Join(err, f.Close())
	}
	return source{changes.Source{ReaderAt: f, Size: info.Size()}, func() { _ = f.Close() }}, nil // only read
}

func (a *app) showDifference(set *changes.Set, patch bool) error {
	d := difference{Changes: []fileChange{}, Same: set.Same, Note: set.Note}
	if patch {
		d.Patch = lineTexts(set.Patch)
	}
	rows := [][]string{{"STATUS", "PATH", "BEFORE", "AFTER", "DETAIL"}}
	for _, f := range set.Files {
		c := fileChange{Status: string(f.Kind), Path: f.Path, Before: f.Before, After: f.After, Detail: changeDetail(f)}
		if patch {
			c.Lines = lineTexts(f.Lines)
		}
		d.Changes = append(d.Changes, c)
		rows = append(rows, []string{c.Status, foreign(c.Path), size(c.Before), size(c.After), c.Detail})
	}
	if d.Note != "" {
		a.say("%s", d.Note)
	}
	a.say("%d files are the same.", d.Same)
	if err := a.show(d, rows); err != nil || !patch || a.format == "json" {
		return err
	}
	return a.showLines(&d, set)
}

// showLines writes the lines below the table.
func (a *app) showLines(d *difference, set *changes.Set) error {
	var text strings.Builder
	for i, c := range d.Changes {
		fmt.Fprintf(&text, "\n%s %s\n", c.Status, foreign(c.Path))
		switch f := set.Files[i]; {
		case f.Unprintable:
			text.WriteString("  (not a text)\n")
		case len(c.Lines) == 0 && f.Kind != changes.Mode && f.Before+f.After > 0:
			text.WriteString("  (too large to be shown by lines)\n")
		}
		for _, line := range c.Lines {
			text.WriteString(line + "\n")
		}
	}
	for _, line := range d.Patch {
		text.WriteString(line + "\n")
	}
	_, err := a.out.WriteString(text.String())
	return err
}

// lineTexts are lines as a terminal may show them.
func lineTexts(lines []changes.Line) []string {
	var texts []string
	for _, l := range lines {
		texts = append(texts, string(rune(l.Mark))+shown(l.Text))
	}
	return texts
}

func changeDetail(f changes.File) string {
	switch {
	case f.Kind == changes.Added:
		return f.ModeAfter.String()
	case f.Kind == changes.Removed || f.ModeBefore == f.ModeAfter:
		return ""
	}
	return fmt.Sprintf("%s to %s", f.ModeBefore, f.ModeAfter)
}
