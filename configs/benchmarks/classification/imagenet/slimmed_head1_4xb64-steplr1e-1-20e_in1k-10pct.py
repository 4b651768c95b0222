_base_ = './slimmed_head1_4xb64-steplr1e-1-20e_in1k-1pct.py'

train_dataloader = dict(dataset=dict(ann_file='meta/train_10percent.txt'))
