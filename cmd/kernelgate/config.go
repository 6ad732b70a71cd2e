package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// Config is the configuration file, docs/configuration.md. Each section has
// its own file here, with its defaults and checks.
type Config struct {
	DataDir  string          `yaml:"dataDir"`
	Root     envelope.Digest `yaml:"root"`
	Instance string          `yaml:"instance"`
	Listen   string          `yaml:"listen"`
	// PrivateLog: the audit log is shown to holders of tokens only.
	PrivateLog bool       `yaml:"privateLog"`
	TLS        TLS        `yaml:"tls"`
	Database   Database   `yaml:"database"`
	Artifacts  Artifacts  `yaml:"artifacts"`
	Bus        Bus        `yaml:"bus"`
	Guard      Guard      `yaml:"guard"`
	Policy     Policy     `yaml:"policy"`
	Targets    Targets    `yaml:"targets"`
	Canary     Canary     `yaml:"canary"`
	CommandPad CommandPad `yaml:"commandPad"`

	Notifications Notifications `yaml:"notifications"`
	Witnesses     Witnesses     `yaml:"witnesses"`

	Limits Limits `yaml:"limits"`
	Log    Log    `yaml:"log"`
	Traces Traces `yaml:"traces"`

	file string // absolute; relative paths are below its directory
}

// section is one part of the configuration.
type section interface {
	// settle makes paths absolute, fills in what follows from other parts, and
	// refuses what can never work.
	settle(c *Config) error
}

// named is a section with its key.
type named struct {
	name string
	section
}

func (c *Config) sections() []named {
	return []named{
		{"tls", &c.TLS}, {"database", &c.Database}, {"artifacts", &c.Artifacts}, {"bus", &c.Bus}, {"guard", &c.Guard}, {"policy", &c.Policy},
		{"targets", &c.Targets}, {"canary", &c.Canary}, {"commandPad", &c.CommandPad}, {"notifications", &c.Notifications}, {"witnesses", &c.Witnesses}, {"limits", &c.Limits}, {"log", &c.Log}, {"traces", &c.Traces},
	}
}

func defaults() *Config {
	return &Config{
		DataDir: "data", Listen: "127.0.0.1:8420",
		Bus:       Bus{Stream: defaultStream, Replicas: 1, MaxLag: defaultMaxLag, MaxDelay: defaultMaxDelay},
		Artifacts: Artifacts{MaxBytes: defaultMaxArtifact}, Guard: Guard{CallTimeout: defaultCallTimeout},
		Policy: Policy{Timeout: defaultPolicyTime}, Limits: Limits{Drain: defaultDrain, UnsealedEvents: defaultUnsealed, MaxUnsealedEvents: 10 * defaultUnsealed, Heartbeat: time.Hour}, Witnesses: Witnesses{Await: true}, Traces: Traces{Sample: 1},
		Log: Log{Format: "json", Level: "info"},
	}
}

// maxConfig bounds the file, in bytes.
const maxConfig = 1 << 20

// loadConfig reads the file and the environment's overrides. An unknown key is
// an error that names it and its line.
func loadConfig(file string) (*Config, error) {
	c, err := readConfig(file)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", file, err)
	}
	return c, nil
}

func readConfig(file string) (*Config, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	data, err := readBounded(path, maxConfig)
	if err != nil {
		return nil, err
	}
	if err := checkYAML(data); err != nil {
		return nil, err
	}
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(data), yaml.Parser()); err != nil {
		return nil, err
	}
	overrides, err := overridesOf(os.Environ())
	if err != nil {
		return nil, err
	}
	if err := k.Load(env.Provider(".", env.Opt{Prefix: envPrefix, TransformFunc: overrides.of}), nil); err != nil {
		return nil, err
	}
	c := defaults()
	if err := k.UnmarshalWithConf("", c, koanf.UnmarshalConf{Tag: "yaml"}); err != nil {
		return nil, err
	}
	c.file = path
	return c, c.settle()
}

func (c *Config) settle() error {
	c.DataDir = c.path(c.DataDir)
	if c.Instance == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("instance: %w", err)
		}
		c.Instance = host
	}
	if err := checkListen(c); err != nil {
		return err
	}
	var failed []error
	for _, s := range c.sections() {
		if err := s.settle(c); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errors.Join(failed...)
}

// path is p, below the file's directory where it is relative.
func (c *Config) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(filepath.Dir(c.file), p)
}

// paths makes the files' paths that are set absolute.
func (c *Config) paths(files ...*string) {
	for _, file := range files {
		if *file != "" {
			*file = c.path(*file)
		}
	}
}

// data is p, or name in the data directory where p is not set.
func (c *Config) data(p, name string) string {
	if p == "" {
		return filepath.Join(c.DataDir, name)
	}
	return c.path(p)
}

// tokens is the file of the API's tokens.
func (c *Config) tokens() string { return filepath.Join(c.DataDir, "tokens.json") }

func (c *Config) requireRoot() error {
	if c.Root == (envelope.Digest{}) {
		return fmt.Errorf("configuration %s: set root to the pinned digest of the registry's version 1 (kgctl registry show prints it)", c.file)
	}
	return nil
}

// unknownField is yaml's message, whose end names a Go type.
var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// checkYAML decodes strictly into the same types, to tell unknown keys and
// wrong types by their lines.
func checkYAML(data []byte) error {
	decoder := yamlv3.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	err := decoder.Decode(new(Config))
	if errors.Is(err, io.EOF) {
		return nil // an empty file
	}
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		text = strings.ReplaceAll(strings.TrimPrefix(text, "unmarshal errors:\n  "), "\n  ", "; ")
		return errors.New(unknownField.ReplaceAllString(text, `unknown key "$1"`))
	}
	if err := decoder.Decode(new(yamlv3.Node)); !errors.Is(err, io.EOF) {
		return errors.New("the file has more than one YAML document")
	}
	return nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, err
}
