package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// fileChange is one line of upgrade diff.
type fileChange struct {
	Status string `json:"status"` // added, removed, modified or mode
	Path   string `json:"path"`
	Before int64  `json:"before,omitzero"` // bytes
	After  int64  `json:"after,omitzero"`
	Detail string `json:"detail,omitzero"`
}

// difference is what lies between two artifacts.
type difference struct {
	Changes []fileChange `json:"changes"`
	Same    int          `json:"same"`          // files that are equal
	Note    string       `json:"note,omitzero"` // why there is no list
}

// compare compares two archives; before "" is what was never there.
func compare(before, after string) (*difference, error) {
	next, err := contents(after)
	if err != nil {
		return nil, err
	}
	if next == nil {
		return &difference{Changes: []fileChange{}, Note: "the artifact is no archive; it is compared as a whole"}, nil
	}
	var last map[string]member
	if before != "" {
		if last, err = contents(before); err != nil {
			return nil, err
		}
	}
	d := &difference{Changes: []fileChange{}}
	for path, m := range next {
		old, was := last[path]
		delete(last, path)
		if c, changed := changeOf(path, old, m, was); changed {
			d.Changes = append(d.Changes, c)
		} else {
			d.Same++
		}
	}
	for path, old := range last {
		d.Changes = append(d.Changes, fileChange{Status: "removed", Path: path, Before: old.size})
	}
	slices.SortFunc(d.Changes, func(x, y fileChange) int { return cmp.Compare(x.Path, y.Path) })
	return d, nil
}

func changeOf(path string, old, m member, was bool) (fileChange, bool) {
	c := fileChange{Path: path, Before: old.size, After: m.size}
	switch {
	case !was:
		c.Status, c.Detail = "added", m.mode.String()
	case old.digest != m.digest || old.link != m.link || old.mode.Type() != m.mode.Type():
		c.Status = "modified"
	case old.mode != m.mode:
		c.Status = "mode"
	default:
		return c, false
	}
	if was && old.mode != m.mode {
		c.Detail = fmt.Sprintf("%s to %s", old.mode, m.mode)
	}
	if m.link != "" {
		c.Detail = strings.TrimSpace(c.Detail + " link to " + m.link)
	}
	return c, true
}

// inspect hashes the artifact's bytes, which must be the manifest's, and says
// in one line what they change.
func (a *app) inspect(ctx context.Context, s *session, m *upgrade.Manifest, artifact string) (string, error) {
	d, err := a.difference(ctx, s, m, artifact)
	if err != nil {
		return "", err
	}
	if d.Note != "" {
		return d.Note, nil
	}
	counts, names := map[string]int{}, []string{}
	for _, c := range d.Changes {
		counts[c.Status]++
		if len(names) < 8 {
			names = append(names, foreign(c.Path))
		}
	}
	text := fmt.Sprintf("%d added, %d removed, %d modified, %d of other mode, %d unchanged", counts["added"], counts["removed"], counts["modified"], counts["mode"], d.Same)
	if len(names) > 0 {
		text += ": " + strings.Join(names, ", ")
	}
	if len(d.Changes) > len(names) {
		text += ", ..."
	}
	return text, nil
}

// difference compares an upgrade's artifact with what it replaces. Only the
// artifact must be there: what is live is for information.
func (a *app) difference(ctx context.Context, s *session, m *upgrade.Manifest, artifact string) (*difference, error) {
	next, done, err := a.artifact(ctx, s.Client, m.PatchHash, artifact)
	if err != nil {
		return nil, err
	}
	defer done()
	base, ok := m.BaseRevision.Digest()
	if !ok {
		return noted(compare("", next))
	}
	last, doneLast, err := a.artifact(ctx, s.Client, base, "")
	if failure.ClassOf(err) != "" {
		return nil, err // a gateway that lies about one artifact is not to be believed in another
	}
	if err != nil {
		return &difference{Changes: []fileChange{}, Note: "what is live cannot be compared: " + foreign(err.Error())}, nil
	}
	defer doneLast()
	return noted(compare(last, next))
}

// noted: an artifact that cannot be looked into can still be signed, by its
// digest; it is said.
func noted(d *difference, err error) (*difference, error) {
	if err != nil {
		return &difference{Changes: []fileChange{}, Note: "the files cannot be compared: " + foreign(err.Error())}, nil
	}
	return d, nil
}
