package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/softhsm"
)

// holder is a person or machine with a token: as what it is enrolled, what its
// API token may do, and with which kind of key it signs.
type holder struct {
	id, name  string
	enrol     []string
	role      string // "" for the Kernel, which does not use the API
	algorithm signer.Algorithm
}

var holders = []holder{
	{"ryan", "Ryan", []string{"--role", "superadmin"}, "approver", signer.ECDSAP256SHA256},
	{"sec-eng", "Security engineer", []string{"--role", "security-engineer"}, "approver", signer.Ed25519},
	{"tech-lead", "Technical lead", []string{"--role", "technical-lead"}, "approver", signer.ECDSAP384SHA384},
	{"divlead-1", "Division lead 1", []string{"--role", "division-lead"}, "approver", signer.RSAPSSSHA256},
	{"divlead-2", "Division lead 2", []string{"--role", "division-lead"}, "approver", signer.RSAPKCS1SHA256},
	{"ops", "Operations", []string{"--requestor"}, "requestor", signer.ECDSAP256SHA256},
	{"ci", "Build farm", []string{"--ci"}, "ci", signer.ECDSAP256SHA256},
	{"kernel-records", "", []string{"--kernel", "records"}, "", signer.ECDSAP256SHA256},
	{"kernel-audit", "", []string{"--kernel", "audit"}, "", signer.Ed25519},
}

// provision makes a token and key for everybody, and the key registry that all
// five approvers sign.
func (d *demo) provision(ctx context.Context) (err error) {
	step("1. Keys. Nine software tokens (SoftHSM2): one for each of the five approvers, one each for operations and the build farm, two for the Kernel.")
	if d.hsm, err = softhsm.New(d.path("tokens")); err != nil {
		return err
	}
	d.keys = map[string]string{}
	for _, h := range holders {
		if err := d.makeKey(h); err != nil {
			return err
		}
		fmt.Printf("      %-15s %s\n", h.id, h.algorithm)
	}
	return d.register(ctx)
}

// makeKey makes a token with a key, which never leaves it, and keeps the key's URI.
func (d *demo) makeKey(h holder) error {
	token, err := d.hsm.CreateToken(h.id)
	if err != nil {
		return err
	}
	key, err := token.GenerateKey(h.id, []byte{1}, h.algorithm)
	if err != nil {
		return err
	}
	d.keys[h.id] = key.URI.Text()
	return d.leave("people/"+h.id+".uri", []byte(d.keys[h.id]+"\n"), 0o600)
}

// enrolment is the command by which a key's holder asks for a place in the registry.
func (d *demo) enrolment(h holder) (file string, args []string) {
	file = d.path("people", h.id+".enrolment.json")
	args = append([]string{"key", "enroll", "--key", d.keys[h.id], "-f", file}, h.enrol...)
	if h.name != "" {
		args = append(args, "--id", h.id, "--name", h.name)
	}
	return file, args
}

func (d *demo) register(ctx context.Context) error {
	step("2. The key registry. Everybody enrols the key on the own token; then the five approvers sign who may sign.")
	propose := []string{"registry", "propose", "--kernel-id", "demo", "--test", "--ratification-window", ratification.String(), "-f", d.path("registry.json")}
	for i, h := range holders {
		file, args := d.enrolment(h)
		enrol := d.kgctl
		if i > 0 {
			enrol = d.quietly
		}
		if _, err := enrol(ctx, h.id, args...); err != nil {
			return err
		}
		propose = append(propose, "--enrolment", file)
	}
	say("The other eight do the same. From the nine files one of them makes the registry:")
	if _, err := d.kgctl(ctx, "ryan", propose...); err != nil {
		return err
	}
	say("It is a test registry, in which people have only %d seconds to ratify an emergency. In production they have 48 hours, or what "+
		"the registry says, an hour at least. A test registry would also allow keys in files; in production such keys are refused.", int(ratification.Seconds()))
	for _, who := range []string{"ryan", "sec-eng", "tech-lead", "divlead-1", "divlead-2"} {
		if _, err := d.kgctl(ctx, who, "registry", "sign", "--key", d.keys[who], d.path("registry.json")); err != nil {
			return err
		}
	}
	return d.pin(ctx)
}

// registry is a registry file as kgctl shows it.
type registry struct {
	Digest string `json:"digest"`
	Keys   []struct {
		ID  string `json:"id"`
		Key struct {
			KeyID string `json:"keyId"`
		} `json:"key"`
	} `json:"keys"`
}

func (d *demo) readRegistry(ctx context.Context, file string) (r registry, err error) {
	out, err := d.quietly(ctx, "ryan", "registry", "show", file)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil || !strings.HasPrefix(r.Digest, "sha256:") {
		return r, fmt.Errorf("kgctl registry show: %w: %s", err, out)
	}
	return r, nil
}

// keyOf is the keyId that a holder has in a registry.
func (r registry) keyOf(who string) (string, error) {
	for _, k := range r.Keys {
		if k.ID == who && k.Key.KeyID != "" {
			return k.Key.KeyID, nil
		}
	}
	return "", fmt.Errorf("the registry has no key of %s", who)
}

// pin takes down the registry's digest: the one thing that a verifier trusts.
func (d *demo) pin(ctx context.Context) error {
	r, err := d.readRegistry(ctx, d.path("registry.json"))
	if err != nil {
		return err
	}
	d.root = r.Digest
	say("The digest of this registry is the pinned root. Whoever checks an upgrade later needs it, and has to trust nothing else:")
	fmt.Println("      " + d.root)
	return d.leave("root.txt", []byte(d.root+"\n"), 0o644)
}
