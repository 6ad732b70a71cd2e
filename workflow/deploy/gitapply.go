package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/kernelgate/kernelgate/workflow"
)

// Apply commits the artifact's files and pushes the commit.
func (g *Git) Apply(ctx context.Context, change workflow.Change) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.apply(ctx, change)
	if err != nil {
		return fmt.Errorf("gitops: %w", err)
	}
	return nil
}

func (g *Git) apply(ctx context.Context, change workflow.Change) (err error) {
	tip, live, err := g.live(ctx, change.Target.Name)
	if err != nil {
		return err
	}
	if done, err := step(live, change); done || err != nil {
		return err
	}
	work, err := os.MkdirTemp(g.config.Dir, workDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	names, err := g.files(ctx, change, work)
	if err != nil {
		return err
	}
	// Others may push to other directories of the branch meanwhile; what is
	// live here is then the same, and the commit is made again on theirs.
	for attempt := 1; ; attempt++ {
		commit, err := g.commit(ctx, change, tip, work, names)
		if err != nil {
			return err
		}
		pushErr := g.push(ctx, tip, commit)
		if pushErr == nil {
			return nil
		}
		was := tip
		if tip, live, err = g.live(ctx, change.Target.Name); err != nil {
			return errors.Join(pushErr, err)
		}
		if done, err := step(live, change); done || err != nil {
			return err
		}
		if attempt == 5 || tip == was {
			return pushErr
		}
	}
}

// push moves the branch from tip to commit, or nothing. The lease is what
// compares; an empty tip says that there must be no such branch.
func (g *Git) push(ctx context.Context, tip, commit string) error {
	_, err := g.git(ctx, nil, nil, "push", "--quiet", "--porcelain", "--no-verify", "--force-with-lease="+g.ref()+":"+tip, "--", g.config.Remote, commit+":"+g.ref())
	return err
}

// files unpacks the artifact into work/files and lists it in the form of
// git update-index --index-info, after writing every file as an object.
func (g *Git) files(ctx context.Context, change workflow.Change, work string) (index string, err error) {
	archive, err := os.Create(filepath.Join(work, "archive"))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	size, err := spool(ctx, change, archive, g.config.Limits.Bytes)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(work, "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := unpack(ctx, archive, size, root, g.config.Limits); err != nil {
		return "", err
	}
	return g.objects(ctx, dir)
}

func (g *Git) objects(ctx context.Context, dir string) (string, error) {
	var names, modes []string
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if hasGitDir(rel) {
			return refuse("path %q is git's own", rel)
		}
		mode := "100644"
		if info.Mode()&0o111 != 0 {
			mode = "100755"
		}
		names, modes = append(names, rel), append(modes, mode)
		return nil
	})
	if err != nil {
		return "", err
	}
	// unpack refuses control characters in names, so one line is one path.
	var paths strings.Builder
	for _, name := range names {
		fmt.Fprintln(&paths, filepath.Join(dir, name))
	}
	out, err := g.git(ctx, strings.NewReader(paths.String()), nil, "hash-object", "-w", "--no-filters", "--stdin-paths")
	if err != nil {
		return "", err
	}
	hashes := strings.Split(out, "\n")
	if len(hashes) != len(names) {
		return "", fmt.Errorf("git wrote %d objects of %d", len(hashes), len(names))
	}
	var index strings.Builder
	for i, name := range names {
		fmt.Fprintf(&index, "%s %s\t%s\x00", modes[i], hashes[i], path.Join(g.config.Path, filepath.ToSlash(name)))
	}
	return index.String(), nil
}

// commit makes the commit on top of tip.
func (g *Git) commit(ctx context.Context, change workflow.Change, tip, work, index string) (string, error) {
	env := []string{"GIT_INDEX_FILE=" + filepath.Join(work, "index")}
	if _, err := g.git(ctx, nil, env, "read-tree", "--empty"); err != nil {
		return "", err
	}
	parents := []string{}
	if tip != "" {
		parents = []string{"-p", tip}
		if err := g.readOthers(ctx, tip, env); err != nil {
			return "", err
		}
	}
	if _, err := g.git(ctx, strings.NewReader(index), env, "update-index", "-z", "--add", "--replace", "--index-info"); err != nil {
		return "", err
	}
	tree, err := g.git(ctx, nil, env, "write-tree")
	if err != nil {
		return "", err
	}
	message := fmt.Sprintf("Deploy %s %.12s\n\nKernelgate-Target: %s\nKernelgate-Patch: %s\nKernelgate-Upgrade: %s\n",
		change.Target.Name, change.Patch.Hex(), change.Target.Name, change.Patch, change.UpgradeID)
	return g.git(ctx, strings.NewReader(message), nil, append([]string{"commit-tree", tree}, parents...)...)
}

// readOthers puts into the index what the tip has outside the target's directory.
func (g *Git) readOthers(ctx context.Context, tip string, env []string) error {
	if g.config.Path == "" {
		return nil
	}
	if _, err := g.git(ctx, nil, env, "read-tree", tip); err != nil {
		return err
	}
	out, err := g.git(ctx, nil, env, "ls-files", "-z", "--", ":(literal)"+g.config.Path)
	if err != nil {
		return err
	}
	var removals strings.Builder
	for name := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		if name != "" {
			fmt.Fprintf(&removals, "0 %s\t%s\x00", strings.Repeat("0", len(tip)), name)
		}
	}
	_, err = g.git(ctx, strings.NewReader(removals.String()), env, "update-index", "-z", "--index-info")
	return err
}
