package bus

import (
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	// ContentType is the header Content-Type of each message.
	ContentType = "application/cloudevents+json"
	// typePrefix stands before the event's type or the record's kind.
	typePrefix   = "com.kernelgate."
	envelopeType = "application/vnd.dsse.envelope.v1+json"
	jsonType     = "application/json"
	// maxMessage bounds what Parse reads, in bytes: above what any server passes on.
	maxMessage = 64 << 20
)

// Message is a CloudEvents 1.0 event in structured JSON: of an event of the
// log, or of a record. Its binary attributes are base64 in JSON.
type Message struct {
	SpecVersion     string        `json:"specversion"`
	ID              string        `json:"id"`     // of an event its seq; of a record its digest
	Source          string        `json:"source"` // kernelgate/KERNELID
	Type            string        `json:"type"`   // com.kernelgate. and the event's type, or record. and the record's kind
	Time            envelope.Time `json:"time"`   // of the event; of a record that of the event which names it
	Subject         envelope.UUID `json:"subject,omitzero"`
	DataContentType string        `json:"datacontenttype"`
	// Of events alone: seq in 16 digits, and what verifies the event.
	Sequence   string         `json:"sequence,omitzero"`
	Checkpoint []byte         `json:"checkpoint,omitzero"`     // a signed note over a tree that has the event
	Proof      []byte         `json:"inclusionproof,omitzero"` // RFC 6962, 32 bytes a hash
	Delegation []byte         `json:"delegation,omitzero"`     // the envelope that introduces the event key
	Data       jsontext.Value `json:"data,omitzero"`           // the envelope, or the record's own JSON; absent where it is too large for the stream
}

// Parse reads a message. It verifies nothing; Verifier does.
func Parse(body []byte) (Message, error) {
	var m Message
	if len(body) > maxMessage {
		return m, fmt.Errorf("the message has %d bytes", len(body))
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, fmt.Errorf("the message is no CloudEvent of the audit bus: %w", err)
	}
	if m.SpecVersion != "1.0" {
		return m, fmt.Errorf("the message is a CloudEvent of version %.20q, not 1.0", m.SpecVersion)
	}
	return m, nil
}

// Subject is the subject, in NATS's sense, below which a Kernel's messages are.
func Subject(kernelID envelope.ID) string { return "kernelgate." + string(kernelID) }

// outgoing is a message on its way.
type outgoing struct {
	subject string
	id      string
	body    []byte
	next    int64 // where the cursor stands once it is acknowledged
}

func source(kernelID envelope.ID) string { return "kernelgate/" + string(kernelID) }

func eventMessage(e workflow.StoredEvent, checkpoint string, proof [][]byte, delegation []byte) (outgoing, error) {
	m := Message{
		SpecVersion: "1.0", ID: strconv.FormatInt(e.Seq, 10), Source: source(e.Event.KernelID), Type: typePrefix + e.Event.Type, Time: e.Event.Time,
		Subject: e.Event.UpgradeID, DataContentType: envelopeType, Sequence: fmt.Sprintf("%016d", e.Seq),
		Checkpoint: []byte(checkpoint), Delegation: delegation, Data: e.Leaf,
	}
	for _, hash := range proof {
		m.Proof = append(m.Proof, hash...)
	}
	body, err := json.Marshal(m)
	return outgoing{Subject(e.Event.KernelID) + ".events." + e.Event.Type, m.ID, body, e.Seq + 1}, err
}

// recordMessage is of the record that an event names. One that is too large
// travels without its data.
func recordMessage(e workflow.StoredEvent, rec workflow.Record, limit int64) (outgoing, error) {
	m := Message{
		SpecVersion: "1.0", ID: rec.Digest.String(), Source: source(e.Event.KernelID), Type: typePrefix + "record." + rec.Kind, Time: e.Event.Time,
		Subject: e.Event.UpgradeID, DataContentType: jsonType, Data: rec.Body,
	}
	if _, err := envelope.Parse(rec.Body); err == nil {
		m.DataContentType = envelopeType
	}
	body, err := json.Marshal(m)
	if err == nil && int64(len(body)) > limit {
		m.Data = nil
		body, err = json.Marshal(m)
	}
	return outgoing{Subject(e.Event.KernelID) + ".records." + rec.Kind, m.ID, body, e.Seq}, err
}
