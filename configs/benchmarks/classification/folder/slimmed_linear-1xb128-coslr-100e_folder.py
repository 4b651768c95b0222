_base_ = './slimmed_ft-1xb128-coslr-100e_folder.py'

# The backbone is frozen, its statistics included.
model = dict(backbone=dict(frozen_stages=4))
optim_wrapper = dict(optimizer=dict(weight_decay=0.))
