# SPDX-License-Identifier: MIT OR Apache-2.0
# Linux's own frontend with each of the backends: what a guest that we do not control sees.
#
# limit: 400
# reports: block-matrix-stock-domu
# reports: block-matrix-stock-{stock,qemu}-{attach,features,files,verify,discard,resize,again,end}

. /lab/library/pair.sh

domu() {
    truncate -s 1M /disks/first
    # With a disk of QEMU's from the start, xl starts QEMU for the domain.
    domu_start d1 'disk=["format=raw,vdev=xvdz,backendtype=qdisk,target=/disks/first"]' xen-blkfront
}

check block-matrix-stock-domu domu
for backend in stock qemu; do
    pair_backend $backend
    pair_check block-matrix-stock-$backend
    check block-matrix-stock-$backend-end pair_end
done
