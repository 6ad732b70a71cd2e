package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// session is one gateway with the registry that it showed, verified from the
// pinned root.
type session struct {
	*client.Client
	root      envelope.Digest
	regs      keyregistry.Chain
	suspended map[envelope.KeyID]bool
}

func (s *session) registry() *keyregistry.Registry { return s.regs.Last() }

// pin is what is remembered of a gateway: its root, and the newest registry
// that it showed, so that it cannot go back to an older one.
type pin struct {
	Root    envelope.Digest `json:"root"`
	Version int64           `json:"version"`
	Digest  envelope.Digest `json:"digest"`
}

// open connects, verifies the registry chain and remembers it.
func (a *app) open(ctx context.Context) (*session, error) {
	gateway, err := a.connect()
	if err != nil {
		return nil, err
	}
	path, old, err := a.readPin()
	if err != nil {
		return nil, err
	}
	chain, err := gateway.RegistryChain(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{Client: gateway, suspended: map[envelope.KeyID]bool{}}
	if s.root, err = a.pinnedRoot(old, chain); err != nil {
		return nil, err
	}
	if s.regs, err = keyregistry.AcceptChain(s.root, chain.Entries); err != nil {
		return nil, fmt.Errorf("the gateway's registry: %w", err)
	}
	if old != nil && (s.registry().Version() < old.Version || s.regs[old.Version-1].Digest() != old.Digest) {
		return nil, failure.New(failure.RegistryChainBroken, "the gateway showed registry version %d (%s) before, and does not any more", old.Version, old.Digest)
	}
	s.suspend(chain.Suspensions)
	return s, a.writePin(path, old, s)
}

// suspend takes in the suspensions that verify. One that does not changes
// nothing: the gateway can withhold a suspension, but not make one.
func (s *session) suspend(list []envelope.Envelope) {
	reg := s.registry()
	for _, env := range list {
		var claim keyregistry.Suspension
		if json.Unmarshal(env.Payload, &claim) != nil {
			continue
		}
		known := func(id envelope.KeyID) bool { return s.suspended[id] }
		if accepted, err := reg.AcceptSuspension(env, known, claim.SuspendedAt); err == nil {
			s.suspended[accepted.SuspendedKeyID] = true
		}
	}
}

// pinnedRoot is the pinned root: as told, as remembered, or as first seen.
func (a *app) pinnedRoot(old *pin, chain client.RegistryChain) (envelope.Digest, error) {
	if a.connection.root != "" {
		told, err := envelope.ParseDigest(a.connection.root)
		if err != nil {
			return told, usagef("--root: %w", err)
		}
		if old != nil && old.Root != told {
			return told, failure.New(failure.RegistryRootMismatch, "%s is pinned to root %s, but you name %s; find out which is right before you go on", a.connection.server, old.Root, told)
		}
		return told, nil
	}
	if old != nil {
		return old.Root, nil
	}
	if len(chain.Entries) == 0 {
		return envelope.Digest{}, failure.New(failure.RegistryRootMismatch, "the gateway has no registry")
	}
	seen := envelope.DigestOf(chain.Entries[0].Document)
	a.say("WARNING: no root is pinned for %s yet. From now on it is pinned to\n    %s\nCompare this with an approver by another channel; everything that is verified rests on it.", a.connection.server, seen)
	return seen, nil
}

func (a *app) readPin() (string, *pin, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", nil, fmt.Errorf("where to remember the pinned root: %w; set XDG_CONFIG_HOME", err)
	}
	address, err := url.Parse(a.connection.server)
	if err != nil {
		return "", nil, usagef("--server: %w", err)
	}
	path := filepath.Join(dir, "kgctl", "gateways", url.PathEscape(address.Host+address.Path)+".json")
	data, err := readFile(path, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	p := new(pin)
	if err := json.Unmarshal(data, p, json.RejectUnknownMembers(true)); err != nil || p.Version < 1 {
		return "", nil, fmt.Errorf("%s, which remembers the pinned root, is damaged: look into it before you remove it", path)
	}
	return path, p, nil
}

func (a *app) writePin(path string, old *pin, s *session) error {
	now := pin{Root: s.root, Version: s.registry().Version(), Digest: s.registry().Digest()}
	if old != nil && *old == now {
		return nil
	}
	if old != nil && old.Version != now.Version {
		a.say("The registry is now version %d (was %d); see kgctl registry show.", now.Version, old.Version)
	}
	data, err := envelope.Canonical(now)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = replaceFile(path, data)
	}
	if err != nil {
		return fmt.Errorf("remember the pinned root: %w", err)
	}
	return nil
}
