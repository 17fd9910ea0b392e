// Prints the published Container Storage Interface as an encoded google.protobuf.FileDescriptorProto, for the
// test that compares our copy of it.
package main

import (
	"log"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
)

func main() {
	encoded, err := proto.Marshal(protodesc.ToFileDescriptorProto(csi.File_csi_proto))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := os.Stdout.Write(encoded); err != nil {
		log.Fatal(err)
	}
}
