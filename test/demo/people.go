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
	step("1. Keys. Nine SoftHSM2 tokens: one per approver, one each for operations and the build farm, two for the Kernel.")
	if d.hsm, err = softhsm.New(d.path("tokens")); err != nil {
		return err
	}
	d.keys = map[string]string{}
	for _, h := range holders {
		token, err := d.hsm.CreateToken(h.id)
		if err != nil {
			return err
		}
		key, err := token.GenerateKey(h.id, []byte{1}, h.algorithm)
		if err != nil {
			return err
		}
		d.keys[h.id] = key.URI.Text()
		if err := d.leave("people/"+h.id+".uri", []byte(d.keys[h.id]+"\n"), 0o600); err != nil {
			return err
		}
		say("%-15s %s", h.id, h.algorithm)
	}
	return d.register(ctx)
}

func (d *demo) register(ctx context.Context) error {
	step("2. The key registry. Everybody enrols a key; the five approvers sign who may sign.")
	propose := []string{"registry", "propose", "--kernel-id", "demo", "-f", d.path("registry.json")}
	for _, h := range holders {
		file := d.path("people", h.id+".enrolment.json")
		args := append([]string{"key", "enroll", "--key", d.keys[h.id], "-f", file}, h.enrol...)
		if h.name != "" {
			args = append(args, "--id", h.id, "--name", h.name)
		}
		if _, err := d.kgctl(ctx, h.id, args...); err != nil {
			return err
		}
		propose = append(propose, "--enrolment", file)
	}
	if _, err := d.kgctl(ctx, "ryan", propose...); err != nil {
		return err
	}
	for _, h := range holders {
		if h.role != "approver" {
			continue
		}
		if _, err := d.kgctl(ctx, h.id, "registry", "sign", "--key", d.keys[h.id], d.path("registry.json")); err != nil {
			return err
		}
	}
	return d.pin(ctx)
}

// pin takes down the registry's digest: the one thing that a verifier trusts.
func (d *demo) pin(ctx context.Context) error {
	out, err := d.kgctl(ctx, "ryan", "registry", "show", d.path("registry.json"))
	if err != nil {
		return err
	}
	var shown struct {
		Digest string `json:"digest"`
	}
	if err := json.Unmarshal(out, &shown); err != nil || !strings.HasPrefix(shown.Digest, "sha256:") {
		return fmt.Errorf("kgctl registry show: %w: %s", err, out)
	}
	d.root = shown.Digest
	say("The registry's digest is the pinned root, all that a verifier must trust:\n      %s", d.root)
	return d.leave("root.txt", []byte(d.root+"\n"), 0o644)
}
