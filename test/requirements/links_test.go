package requirements

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
	code = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
)

// Every page under docs is reached from the README in one step, but for those
// that a folder's own README lists; and no link between the pages is dead.
func TestEveryPageIsReached(t *testing.T) {
	reached := map[string]bool{}
	for _, page := range pages(t) {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(string(text), "code"), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			target := filepath.Join(filepath.Dir(page), m[1])
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which does not exist", page, m[1])
			}
			if filepath.Base(page) == "README.md" {
				reached[target] = true
			}
		}
	}
	for _, page := range append(pages(t), "docs/openapi.yaml") {
		if page != "README.md" && strings.HasPrefix(page, "docs") && !reached[page] {
			t.Errorf("no README links to %s", page)
		}
	}
}

// pages are the Markdown files at the top and under docs.
func pages(t *testing.T) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range out {
		out[i] = filepath.Base(out[i])
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".md") {
			name, relErr := filepath.Rel(root, path)
			out = append(out, name)
			err = relErr
		}
		return err
	})
	if err != nil || len(out) < 20 {
		t.Fatalf("%d pages: %v", len(out), err)
	}
	return out
}
