# SPDX-License-Identifier: MIT OR Apache-2.0
# Our frontend with each of the backends. Each pair attaches, agrees on
# all that both can do, makes a file system, verifies what it wrote, discards, grows, detaches and attaches again.
#
# limit: 600
# reports: block-matrix-ours-domu
# reports: block-matrix-ours-{stock,ours,uring,qemu}-{attach,features,files,verify,flush,discard,resize,again,end}

domu() {
    truncate -s 1M /disks/first
    # With a disk of QEMU's from the start, xl starts QEMU for the domain.
    domu_start d1 "$pair_qemu" 'disk=["format=raw,vdev=xvdz,backendtype=qdisk,target=/disks/first"]'
    domu_must d1 'insmod /modules/causeway-blkfront.ko max_ring_page_order=2'
}

check block-matrix-ours-domu domu
for backend in stock ours uring qemu; do pair_check block-matrix-ours $backend; done
