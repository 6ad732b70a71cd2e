// Package requirements holds docs/requirements.md to what it says: every folder
// and test that it names exists.
package requirements

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

var (
	quoted   = regexp.MustCompile("`([^`]+)`")
	testName = regexp.MustCompile(`^([a-z0-9/]+)\.((?:Test|Fuzz)[A-Za-z0-9]+)$`)
)

func TestEveryNamedTestExists(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "requirements.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]map[string]bool{} // by folder
	rows, named := 0, 0
	for n, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") || cells[0] == "The requirement says" {
			continue
		}
		rows++
		if len(cells) != 3 {
			t.Errorf("line %d has %d cells, want a sentence, where it is built, and its tests", n+1, len(cells))
			continue
		}
		for _, place := range quoted.FindAllStringSubmatch(cells[1], -1) {
			if _, err := os.Stat(filepath.Join(root, place[1])); err != nil {
				t.Errorf("line %d: %v", n+1, err)
			}
		}
		found := quoted.FindAllStringSubmatch(cells[2], -1)
		if len(found) == 0 {
			t.Errorf("line %d names no test", n+1)
		}
		for _, name := range found {
			part := testName.FindStringSubmatch(name[1])
			if part == nil {
				t.Errorf("line %d: %q is no folder.TestName", n+1, name[1])
				continue
			}
			if tests[part[1]] == nil {
				tests[part[1]] = functions(t, part[1])
			}
			if !tests[part[1]][part[2]] {
				t.Errorf("line %d: there is no %s in %s", n+1, part[2], part[1])
			}
			named++
		}
	}
	if rows < 50 || named < rows {
		t.Errorf("%d rows name %d tests: the table is not read", rows, named)
	}
}

// functions are the tests of a folder.
func functions(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				out[f.Name.Name] = true
			}
		}
	}
	return out
}
