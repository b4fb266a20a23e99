# SPDX-License-Identifier: MIT OR Apache-2.0
# Our frontend with each of the backends.
#
# limit: 400
# reports: block-matrix-ours-domu
# reports: block-matrix-ours-{stock,ours,uring,qemu}-{attach,features,files,verify,discard,resize,again,end}

. /lab/library/pair.sh

domu() {
    truncate -s 1M /disks/first
    # With a disk of QEMU's from the start, xl starts QEMU for the domain.
    domu_start d1 'disk=["format=raw,vdev=xvdz,backendtype=qdisk,target=/disks/first"]' /modules/causeway-blkfront.ko
}

check block-matrix-ours-domu domu
for backend in stock ours uring qemu; do
    pair_backend $backend
    pair_check block-matrix-ours-$backend
    check block-matrix-ours-$backend-end pair_end
done
