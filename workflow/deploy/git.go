package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// GitConfig says where a Git deployer commits.
type GitConfig struct {
	Remote  string // URL or path; no password in it, git's credential helpers and ssh keys have those
	Branch  string // such as "main"
	Path    string // directory in the repository that holds the target; "" for all of it
	Dir     string // the deployer's own bare clone, made where it is missing; no other process uses it
	Author  string // "Name <address>" of the commits
	Timeout time.Duration
	Limits  Limits
}

// Git deploys by a commit to a branch, which Argo CD, Flux or any watcher takes
// from there. The commit replaces everything below Path by the artifact's files
// and has the trailers Kernelgate-Target, Kernelgate-Patch and Kernelgate-Upgrade;
// it is pushed only if the branch is where it was read. What is live is read
// from the remote branch: the patch of the newest such commit, if the files
// below Path are its files still.
//
// It runs the git program and its plumbing commands, never a hook, a filter or
// an attribute of the repository, so that files are byte for byte the artifact's.
type Git struct {
	config GitConfig
	mu     sync.Mutex // one user of the clone at a time
}

var _ workflow.Deployer = (*Git)(nil)

// OpenGit prepares the deployer's own clone. It does not ask the remote yet.
func OpenGit(ctx context.Context, config GitConfig) (*Git, error) {
	g := &Git{config: config}
	if err := g.check(ctx); err != nil {
		return nil, fmt.Errorf("gitops target: %w", err)
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("gitops target: %w", err)
	}
	if err := g.tidy(); err != nil {
		return nil, fmt.Errorf("gitops target: %w", err)
	}
	if _, err := g.git(ctx, nil, nil, "init", "--quiet", "--bare", "--template="); err != nil {
		return nil, fmt.Errorf("gitops target: %w", err)
	}
	return g, nil
}

// tidy removes what a process left that died in the middle: what it unpacked, and
// locks, for which git would wait for ever.
func (g *Git) tidy() error {
	for _, pattern := range []string{workDir + "*", "*.lock", "refs/kernelgate/*.lock"} {
		left, err := filepath.Glob(filepath.Join(g.config.Dir, pattern))
		if err != nil {
			return err
		}
		for _, name := range left {
			if err := os.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// workDir begins the names, in the clone, of directories where artifacts are unpacked.
const workDir = "kernelgate-"

func (g *Git) check(ctx context.Context) error {
	c := &g.config
	if c.Timeout <= 0 || !filepath.IsAbs(c.Dir) {
		return errors.New("set a positive timeout and an absolute path for the clone")
	}
	if c.Remote == "" || strings.HasPrefix(c.Remote, "-") {
		return errors.New("the remote is neither a URL nor a path")
	}
	if u, err := url.Parse(c.Remote); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			return errors.New("the remote's URL has a password, which other users of this host could see; use a credential helper or an ssh key")
		}
	}
	if name, address, ok := strings.Cut(strings.TrimSuffix(c.Author, ">"), " <"); !ok || name == "" || address == "" || strings.ContainsAny(name+address, "<>\n\x00") {
		return fmt.Errorf("author %q is not of the form: Name <address>", c.Author)
	}
	if c.Path != "" {
		if clean, err := newNames(c.Limits).clean(c.Path, false); err != nil || clean != c.Path || hasGitDir(c.Path) {
			return fmt.Errorf("path %q is not the path of a directory in the repository", c.Path)
		}
	}
	if err := c.Limits.check(); err != nil {
		return err
	}
	_, err := command{argv: []string{"git", "check-ref-format", g.ref()}, limit: 100}.run(ctx)
	if err != nil || strings.HasPrefix(c.Branch, "-") {
		return fmt.Errorf("%q is not the name of a branch", c.Branch)
	}
	return nil
}

func (g *Git) ref() string { return "refs/heads/" + g.config.Branch }

// git runs one git command in the clone.
func (g *Git) git(ctx context.Context, stdin io.Reader, env []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, g.config.Timeout)
	defer cancel()
	name, address, _ := strings.Cut(strings.TrimSuffix(g.config.Author, ">"), " <")
	env = append(env,
		"GIT_DIR="+g.config.Dir, "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME="+name, "GIT_AUTHOR_EMAIL="+address, "GIT_COMMITTER_NAME="+name, "GIT_COMMITTER_EMAIL="+address,
	)
	argv := append([]string{"git", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "core.fsync=all"}, args...)
	out, err := command{argv: argv, stdin: stdin, env: env, limit: 64 << 20}.run(ctx)
	return strings.TrimSuffix(out, "\n"), err
}

// Live fetches the branch and reads its newest commit for the target.
func (g *Git) Live(ctx context.Context, target envelope.ID) (upgrade.Revision, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, live, err := g.live(ctx, target)
	if err != nil {
		return "", fmt.Errorf("gitops: %w", err)
	}
	return live, nil
}

// live returns the branch's tip too, "" where there is no such branch yet.
func (g *Git) live(ctx context.Context, target envelope.ID) (tip string, live upgrade.Revision, err error) {
	if tip, err = g.fetch(ctx); err != nil || tip == "" {
		return "", upgrade.None, err
	}
	out, err := g.git(ctx, nil, nil, "log", "-1", "--first-parent", "--extended-regexp", "--all-match",
		"--grep=^Kernelgate-Target: "+string(target)+"$", "--grep=^Kernelgate-Patch: sha256:[0-9a-f]{64}$",
		"--format=%H %(trailers:key=Kernelgate-Patch,valueonly,separator=%x20)", tip)
	if err != nil {
		return "", "", err
	}
	if out == "" {
		return tip, upgrade.None, nil
	}
	commit, patch, _ := strings.Cut(out, " ")
	digest, err := envelope.ParseDigest(patch)
	if err != nil {
		return "", "", fmt.Errorf("commit %s: its Kernelgate-Patch: %w", commit, err)
	}
	was, err := g.tree(ctx, commit)
	if err != nil {
		return "", "", err
	}
	if is, err := g.tree(ctx, tip); err != nil {
		return "", "", err
	} else if is != was {
		return "", "", fmt.Errorf("branch %s: %s has been changed by others since commit %s, so nobody knows what is live; take these changes back", g.config.Branch, path.Join("/", g.config.Path), commit)
	}
	return tip, upgrade.RevisionOf(digest), nil
}

// fetch asks the remote for the branch's tip, and gets its commits.
func (g *Git) fetch(ctx context.Context) (string, error) {
	out, err := g.git(ctx, nil, nil, "ls-remote", "--", g.config.Remote, g.ref())
	if err != nil || out == "" {
		return "", err
	}
	tip, _, _ := strings.Cut(out, "\t")
	if !envelope.IsLowerHex(tip, 40) && !envelope.IsLowerHex(tip, 64) {
		return "", fmt.Errorf("the remote's answer is %.80q", out)
	}
	// Kept under a name of its own, so that the clone never loses it.
	_, err = g.git(ctx, nil, nil, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", g.config.Remote, "+"+g.ref()+":refs/kernelgate/tip")
	if err != nil {
		return "", err
	}
	fetched, err := g.git(ctx, nil, nil, "rev-parse", "--verify", "refs/kernelgate/tip^{commit}")
	return fetched, err
}

// tree is the hash of the target's directory in a commit, "" where it has none.
func (g *Git) tree(ctx context.Context, commit string) (string, error) {
	if g.config.Path == "" {
		return g.git(ctx, nil, nil, "rev-parse", "--verify", commit+"^{tree}")
	}
	return g.git(ctx, nil, nil, "ls-tree", "--format=%(objectname)", "--full-tree", commit, "--", ":(literal)"+g.config.Path)
}

func hasGitDir(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.EqualFold(part, ".git") {
			return true
		}
	}
	return false
}
