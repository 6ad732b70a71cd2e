package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
)

// Targets are what upgrades change, by a manifest's target.name.
type Targets map[string]Target

// Target has exactly one member.
type Target struct {
	Release *ReleaseTarget `yaml:"release"`
	GitOps  *GitOpsTarget  `yaml:"gitops"`
	Exec    *ExecTarget    `yaml:"exec"`
}

// ReleaseTarget is a directory with releases and the symlink current.
type ReleaseTarget struct {
	Dir  string `yaml:"dir"`
	Keep int    `yaml:"keep"` // old releases that stay, beside the last one
}

// GitOpsTarget is a branch that a GitOps engine follows.
type GitOpsTarget struct {
	Remote  string        `yaml:"remote"`
	Branch  string        `yaml:"branch"`
	Path    string        `yaml:"path"`
	Author  string        `yaml:"author"`
	Timeout time.Duration `yaml:"timeout"`
}

// ExecTarget is the operator's own program.
type ExecTarget struct {
	Command  []string      `yaml:"command"`
	Timeout  time.Duration `yaml:"timeout"`
	MaxBytes int64         `yaml:"maxBytes"`
}

const defaultDeployTime = 5 * time.Minute

func (t *Targets) settle(c *Config) error {
	var failed []error
	for name, target := range *t {
		var id envelope.ID
		err := id.UnmarshalText([]byte(name))
		if err == nil {
			err = target.settle(c)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}

// settle changes what the members point to.
func (t Target) settle(c *Config) error {
	members := 0
	if r := t.Release; r != nil {
		members++
		if r.Dir == "" {
			return errors.New("release: set dir")
		}
		r.Dir = c.path(r.Dir)
	}
	if g := t.GitOps; g != nil {
		members++
		if g.Timeout == 0 {
			g.Timeout = defaultDeployTime
		}
		if g.Author == "" {
			g.Author = "kernelgate <kernelgate@localhost>"
		}
	}
	if e := t.Exec; e != nil {
		members++
		if e.Timeout == 0 {
			e.Timeout = defaultDeployTime
		}
		if e.MaxBytes == 0 {
			e.MaxBytes = c.Artifacts.MaxBytes
		}
	}
	if members != 1 {
		return errors.New("set exactly one of release, gitops, exec")
	}
	return nil
}

// openTargets makes the deployers. close gives up what they hold.
func openTargets(ctx context.Context, c *Config) (set deploy.Set, closeAll func() error, err error) {
	set = deploy.Set{}
	var closers []func() error
	closeAll = func() error {
		var failed []error
		for _, f := range closers {
			failed = append(failed, f())
		}
		return errors.Join(failed...)
	}
	for name, t := range c.Targets {
		d, err := t.open(ctx, c, name)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("target %s: %w", name, err), closeAll())
		}
		if closer, ok := d.(interface{ Close() error }); ok {
			closers = append(closers, closer.Close)
		}
		set[envelope.ID(name)] = d
	}
	return set, closeAll, nil
}

func (t Target) open(ctx context.Context, c *Config, name string) (workflow.Deployer, error) {
	switch {
	case t.Release != nil:
		return deploy.OpenRelease(t.Release.Dir, t.Release.Keep, deploy.DefaultLimits())
	case t.GitOps != nil:
		g := t.GitOps
		return deploy.OpenGit(ctx, deploy.GitConfig{Remote: g.Remote, Branch: g.Branch, Path: g.Path, Author: g.Author, Timeout: g.Timeout,
			Dir: filepath.Join(c.DataDir, "gitops", name), Limits: deploy.DefaultLimits()})
	default:
		return deploy.NewExec(t.Exec.Command, t.Exec.Timeout, t.Exec.MaxBytes)
	}
}
