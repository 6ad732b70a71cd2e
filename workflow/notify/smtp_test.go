package notify_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/notify"
)

// mailServer speaks RFC 5321 with STARTTLS and AUTH PLAIN, and keeps mails.
type mailServer struct {
	net.Listener
	config   *tls.Config
	startTLS bool
	refuse   string // an address that has no mailbox

	mu    sync.Mutex
	mails []letter
	plain []string // commands before TLS
}

type letter struct {
	to   []string
	auth string
	text string
}

func newMailServer(t *testing.T, startTLS bool) (*mailServer, string) {
	t.Helper()
	in := newInbox(t, true) // for its certificate
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mailServer{Listener: l, config: &tls.Config{Certificates: in.TLS.Certificates, MinVersion: tls.VersionTLS12}, startTLS: startTLS}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { defer conn.Close(); s.talk(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); open.Wait() })
	return s, in.ca
}

func (s *mailServer) talk(conn net.Conn) {
	r := bufio.NewReader(conn)
	secure := false
	var current letter
	say := func(line string) { _, _ = io.WriteString(conn, line+"\r\n") }
	say("220 mail.example ESMTP")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		if !secure {
			s.mu.Lock()
			s.plain = append(s.plain, line)
			s.mu.Unlock()
		}
		verb, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			if s.startTLS && !secure {
				say("250-mail.example")
				say("250 STARTTLS")
			} else {
				say("250-mail.example")
				say("250 AUTH PLAIN")
			}
		case "STARTTLS":
			say("220 go ahead")
			tlsConn := tls.Server(conn, s.config)
			conn, r, secure = tlsConn, bufio.NewReader(tlsConn), true
		case "AUTH":
			raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			current.auth = string(raw)
			say("235 welcome")
		case "RCPT":
			to := strings.Trim(strings.TrimPrefix(rest, "TO:"), "<>")
			if to == s.refuse {
				say("550 no such mailbox")
				continue
			}
			current.to = append(current.to, to)
			say("250 ok")
		case "DATA":
			say("354 go on")
			for {
				text, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if text == ".\r\n" {
					break
				}
				current.text += strings.TrimPrefix(text, ".")
			}
			s.mu.Lock()
			s.mails = append(s.mails, current)
			s.mu.Unlock()
			say("250 kept")
		case "QUIT":
			say("221 bye")
			return
		default: // EHLO again, MAIL
			say("250 ok")
		}
	}
}

func (s *mailServer) letters() []letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

func mailConfig(t *testing.T, s *mailServer, ca string) notify.Config {
	c := config(notify.Receiver{Name: "mail", SMTP: &notify.SMTP{
		Address: s.Addr().String(), From: "gate@gate.example", User: "gate", PasswordFile: file(t, "open sesame\n"), CAFile: ca,
	}})
	c.People = map[string]string{"ryan": "ryan@example.org", "divlead-1": "d1@example.org", "ops": "ops@example.org"}
	c.Auditors = []string{"audit@example.org"}
	return c
}

func TestSMTP(t *testing.T) {
	server, ca := newMailServer(t, true)
	server.refuse = "d1@example.org"
	s := newStore(auditlog.UpgradePendingApproval, auditlog.UpgradeApplied, auditlog.GuardDenied)
	r := run(t, mailConfig(t, server, ca), s)
	eventually(t, "three mails", func() bool { return s.cursor("notify/mail") == 3 })
	got := server.letters()
	for i, want := range [][]string{{"ryan@example.org"}, {"ops@example.org", "ryan@example.org"}, {"audit@example.org"}} {
		if !slices.Equal(got[i].to, want) {
			t.Errorf("mail %d to %v, want %v", i, got[i].to, want)
		}
	}
	if got[0].auth != "\x00gate\x00open sesame" {
		t.Errorf("login %q", got[0].auth)
	}
	m, err := mail.ReadMessage(strings.NewReader(got[0].text))
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Subject") != "[kernelgate] The upgrade of web waits for your approval" || m.Header.Get("From") != "gate@gate.example" || m.Header.Get("Message-ID") == "" {
		t.Errorf("headers %v", m.Header)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil || !strings.Contains(string(body), "Until 2026-06-14T00:00:00Z.\r\nhttps://gate.example/upgrades/"+string(upgradeID)+"\r\n") {
		t.Errorf("body %q, %v", body, err)
	}
	if strings.Contains(r.log.String(), "sesame") {
		t.Error("the password is logged")
	}
	for _, line := range server.plain {
		if v, _, _ := strings.Cut(line, " "); v != "EHLO" && v != "STARTTLS" {
			t.Errorf("%q was said before TLS", line)
		}
	}
}

func TestSMTPWithoutTLS(t *testing.T) {
	server, ca := newMailServer(t, false)
	s := newStore(auditlog.UpgradeApplied)
	c := mailConfig(t, server, ca)
	r := run(t, c, s)
	eventually(t, "it is refused", func() bool { return strings.Contains(r.log.String(), "offers no STARTTLS") })
	r.stop()
	if len(server.letters()) != 0 || s.cursor("notify/mail") != 0 {
		t.Fatal("sent without TLS")
	}
	c.Receivers[0].SMTP.TLS, c.Receivers[0].SMTP.User, c.Receivers[0].SMTP.PasswordFile = "none", "", ""
	run(t, c, s)
	eventually(t, "sent where that is configured", func() bool { return len(server.letters()) == 1 })
}

func TestSMTPOfAStranger(t *testing.T) {
	server, _ := newMailServer(t, true)
	r := run(t, mailConfig(t, server, ""), newStore(auditlog.UpgradeApplied))
	eventually(t, "its certificate is refused", func() bool { return strings.Contains(r.log.String(), "certificate") })
	if len(server.letters()) != 0 {
		t.Fatal("sent to a server that nobody vouches for")
	}
}

// A mail server that never stops talking costs a bounded amount of memory.
func TestSMTPThatNeverEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for err := error(nil); err == nil; {
					_, err = io.WriteString(conn, "220-"+strings.Repeat("x", 1000)+"\r\n")
				}
			}()
		}
	}()
	r := run(t, mailConfig(t, &mailServer{Listener: l}, ""), newStore(auditlog.UpgradeApplied))
	eventually(t, "it is given up", func() bool { return strings.Contains(r.log.String(), "says too much") })
}
