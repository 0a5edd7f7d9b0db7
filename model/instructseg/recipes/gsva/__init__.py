"""GSVA (Xia et al., CVPR 2024, arXiv 2312.10103), and LISA (Lai et al., CVPR 2024, arXiv 2308.00692) before it."""
