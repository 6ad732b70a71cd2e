package main

import (
	"cmp"
	"slices"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// add puts an enrolment into the document. Whether the outcome is a registry
// is ParseDocument's to say.
func add(d *keyregistry.Document, e *enrolment) {
	switch e.Kind {
	case keyregistry.KindApprover:
		for i := range d.Approvers {
			if p := &d.Approvers[i]; p.ID == e.ID {
				p.Keys, p.Name, p.Role = append(p.Keys, e.Key), e.Name, e.Role
				return
			}
		}
		d.Approvers = append(d.Approvers, keyregistry.Approver{ID: e.ID, Name: e.Name, Role: e.Role, Keys: []keyregistry.Key{e.Key}})
	case keyregistry.KindRequestor:
		d.Requestors = addPerson(d.Requestors, e)
	case keyregistry.KindCI:
		d.CI = addPerson(d.CI, e)
	case keyregistry.KindKernelRecords:
		d.Kernel.Records = append(d.Kernel.Records, e.Key)
	case keyregistry.KindKernelAudit:
		d.Kernel.Audit = append(d.Kernel.Audit, e.Key)
	}
}

func addPerson(list []keyregistry.Person, e *enrolment) []keyregistry.Person {
	for i := range list {
		if list[i].ID == e.ID {
			list[i].Keys, list[i].Name = append(list[i].Keys, e.Key), e.Name
			return list
		}
	}
	return append(list, keyregistry.Person{ID: e.ID, Name: e.Name, Keys: []keyregistry.Key{e.Key}})
}

// removeKey takes a key out, wherever it stands.
func removeKey(d *keyregistry.Document, id envelope.KeyID) bool {
	found := false
	from := func(keys []keyregistry.Key) []keyregistry.Key {
		return slices.DeleteFunc(keys, func(k keyregistry.Key) bool {
			found = found || k.KeyID == id
			return k.KeyID == id
		})
	}
	for i := range d.Approvers {
		d.Approvers[i].Keys = from(d.Approvers[i].Keys)
	}
	for _, list := range [][]keyregistry.Person{d.Requestors, d.CI} {
		for i := range list {
			list[i].Keys = from(list[i].Keys)
		}
	}
	d.Kernel.Records, d.Kernel.Audit = from(d.Kernel.Records), from(d.Kernel.Audit)
	return found
}

// tidy sorts as the protocol asks and drops people who have no key left.
func tidy(d *keyregistry.Document) {
	d.Approvers = slices.DeleteFunc(d.Approvers, func(p keyregistry.Approver) bool { return len(p.Keys) == 0 })
	slices.SortFunc(d.Approvers, func(x, y keyregistry.Approver) int { return cmp.Compare(x.ID, y.ID) })
	for i := range d.Approvers {
		sortKeys(d.Approvers[i].Keys)
	}
	d.Requestors, d.CI = tidyPeople(d.Requestors), tidyPeople(d.CI)
}

func tidyPeople(list []keyregistry.Person) []keyregistry.Person {
	list = slices.DeleteFunc(list, func(p keyregistry.Person) bool { return len(p.Keys) == 0 })
	slices.SortFunc(list, func(x, y keyregistry.Person) int { return cmp.Compare(x.ID, y.ID) })
	for i := range list {
		sortKeys(list[i].Keys)
	}
	return list
}

func sortKeys(keys []keyregistry.Key) {
	slices.SortFunc(keys, func(x, y keyregistry.Key) int { return cmp.Compare(x.KeyID, y.KeyID) })
}
